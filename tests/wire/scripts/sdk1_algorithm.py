"""SageMaker Python SDK 1.x: AlgorithmEstimator, with its own checks, trains by an algorithm's ARN."""

import boto3
import sagemaker
from data import breast_cancer, report
from published import publish
from sagemaker.algorithm import AlgorithmEstimator
from sagemaker.session import s3_input

session = sagemaker.Session()
role = sagemaker.get_execution_role()
bucket = session.default_bucket()
csv, _, _ = breast_cancer()
train_uri = session.upload_string_as_file_body(csv, bucket, "sdk1-algorithm/train/data.csv").rsplit("/", 1)[0]
output_uri = "s3://%s/sdk1-algorithm/output" % bucket
arn = publish(boto3.client("sagemaker"), "sdk1-Algorithm", role, train_uri, output_uri)


def estimator(**changes):
    given = {
        "train_instance_count": 1,
        "train_instance_type": "ml.m4.xlarge",
        "output_path": output_uri,
        "sagemaker_session": session,
    }
    return AlgorithmEstimator(arn, role, **dict(given, **changes))


refused = []
for changes in ({"train_instance_type": "ml.p3.2xlarge"}, {"train_instance_count": 2}):
    try:
        estimator(**changes)
    except ValueError as error:
        refused.append(str(error))
trained = estimator()
trained.set_hyperparameters(objective="binary:logistic", eta=0.3)
trained.fit({"train": s3_input(train_uri, content_type="text/csv")}, logs=True)
attached = AlgorithmEstimator.attach(trained.latest_training_job.name, sagemaker_session=session)
job = session.sagemaker_client.describe_training_job(TrainingJobName=trained.latest_training_job.name)
report(
    arn=arn,
    refused=refused,
    status=job["TrainingJobStatus"],
    hyperparameters=job["HyperParameters"],
    attached_arn=attached.algorithm_arn,
    model_data=trained.model_data,
    metrics={each["MetricName"]: each["Value"] for each in job["FinalMetricDataList"]},
)
