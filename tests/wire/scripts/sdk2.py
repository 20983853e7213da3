"""SageMaker Python SDK 2.x: built-in XGBoost and a scikit-learn script, trained, deployed and scored."""

import time

import boto3
import numpy
import sagemaker
from data import breast_cancer, report
from sagemaker.analytics import TrainingJobAnalytics
from sagemaker.deserializers import CSVDeserializer, JSONDeserializer
from sagemaker.inputs import TrainingInput
from sagemaker.serializers import CSVSerializer, NumpySerializer
from sagemaker.sklearn import SKLearn


def wait_in_service(name):
    waiter = boto3.client("sagemaker").get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})


session = sagemaker.Session()
role = sagemaker.get_execution_role()
bucket = session.default_bucket()
csv, test_x, test_y = breast_cancer()
train_uri = session.upload_string_as_file_body(csv, bucket, "sdk2/train/data.csv").rsplit("/", 1)[0]

builtin = sagemaker.estimator.Estimator(
    sagemaker.image_uris.retrieve("xgboost", session.boto_region_name, version="1.7-1"),
    role,
    instance_count=1,
    instance_type="ml.m5.large",
    output_path=f"s3://{bucket}/sdk2/output",
    hyperparameters={"objective": "binary:logistic", "num_round": 20, "eval_metric": "auc"},
    sagemaker_session=session,
)
builtin.fit({"train": TrainingInput(train_uri, content_type="text/csv")}, logs=True)
metrics = TrainingJobAnalytics(builtin.latest_training_job.name, metric_names=["train:auc"]).dataframe()
attached = sagemaker.estimator.Estimator.attach(builtin.latest_training_job.name, sagemaker_session=session)
predictor = attached.deploy(
    1, "ml.m5.large", serializer=CSVSerializer(), deserializer=CSVDeserializer(), wait=False
)
wait_in_service(predictor.endpoint_name)
scores = numpy.array(predictor.predict(test_x), dtype=float).ravel()
predictor.delete_model()
predictor.delete_endpoint()

script = SKLearn(
    entry_point="train_sklearn.py",
    source_dir=".",
    role=role,
    instance_type="ml.m5.large",
    framework_version="1.2-1",
    py_version="py3",
    hyperparameters={"C": 0.5},
    metric_definitions=[{"Name": "train:accuracy", "Regex": r"train_accuracy=([0-9.]+);"}],
    sagemaker_session=session,
)
script.fit({"train": train_uri}, wait=False)
script.latest_training_job.wait(logs=False)
described = script.latest_training_job.describe()
own = script.deploy(
    1, "ml.m5.large", serializer=NumpySerializer(), deserializer=JSONDeserializer(), wait=False
)
wait_in_service(own.endpoint_name)
labels = numpy.array(own.predict(test_x), dtype=float).ravel()
own.delete_model()
own.delete_endpoint()

logs = boto3.client("logs").filter_log_events(
    logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=script.latest_training_job.name
)["events"]
report(
    role=role,
    builtin_accuracy=float(((scores > 0.5) == test_y).mean()),
    curve_points=len(metrics),
    script_accuracy=float((labels == test_y).mean()),
    script_metrics={m["MetricName"]: m["Value"] for m in described["FinalMetricDataList"]},
    script_logs=[event["message"] for event in logs],
    model_data=script.model_data,
    finished_at=time.time(),
)
