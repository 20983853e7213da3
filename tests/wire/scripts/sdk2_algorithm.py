"""SageMaker Python SDK 2.x: AlgorithmEstimator trains by an algorithm's name, and is attached to again."""

import sagemaker
from data import breast_cancer, report
from published import publish
from sagemaker.algorithm import AlgorithmEstimator
from sagemaker.inputs import TrainingInput

session = sagemaker.Session()
role = sagemaker.get_execution_role()
bucket = session.default_bucket()
csv, _, _ = breast_cancer()
train_uri = session.upload_string_as_file_body(csv, bucket, "sdk2-algorithm/train/data.csv").rsplit("/", 1)[0]
output_uri = f"s3://{bucket}/sdk2-algorithm/output"
arn = publish(session.sagemaker_client, "sdk2-algorithm", role, train_uri, output_uri)

estimator = AlgorithmEstimator(
    algorithm_arn=arn,
    role=role,
    instance_count=1,
    instance_type="ml.m5.large",
    output_path=output_uri,
    sagemaker_session=session,
    hyperparameters={"objective": "binary:logistic"},
)
estimator.fit({"train": TrainingInput(train_uri, content_type="text/csv")}, logs="All")
attached = AlgorithmEstimator.attach(estimator.latest_training_job.name, sagemaker_session=session)
job = estimator.latest_training_job.describe()
report(
    arn=arn,
    status=job["TrainingJobStatus"],
    hyperparameters=job["HyperParameters"],
    attached_arn=attached.algorithm_arn,
    model_data=estimator.model_data,
    curve=list(estimator.training_job_analytics.dataframe()["metric_name"].unique()),
)
