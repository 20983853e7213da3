"""SageMaker Python SDK 1.x: built-in XGBoost, trained, attached, deployed and scored."""

import boto3
import numpy
import sagemaker
from data import breast_cancer, report
from sagemaker.amazon.amazon_estimator import get_image_uri
from sagemaker.predictor import csv_serializer
from sagemaker.session import s3_input

session = sagemaker.Session()
role = sagemaker.get_execution_role()
bucket = session.default_bucket()
csv, test_x, test_y = breast_cancer()
train_uri = session.upload_string_as_file_body(csv, bucket, "sdk1/train/data.csv").rsplit("/", 1)[0]

estimator = sagemaker.estimator.Estimator(
    get_image_uri(session.boto_region_name, "xgboost", repo_version="1.0-1"),
    role,
    train_instance_count=1,
    train_instance_type="ml.m4.xlarge",
    output_path="s3://%s/sdk1/output" % bucket,
    sagemaker_session=session,
)
estimator.set_hyperparameters(objective="binary:logistic", num_round=20)
estimator.fit({"train": s3_input(train_uri, content_type="text/csv")}, logs=True)
predictor = estimator.deploy(
    1, "ml.m4.xlarge", wait=False, serializer=csv_serializer, content_type="text/csv"
)
waiter = boto3.client("sagemaker").get_waiter("endpoint_in_service")
waiter.wait(EndpointName=predictor.endpoint, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
scores = numpy.array(predictor.predict(test_x).decode().split(","), dtype=float)
predictor.delete_model()
predictor.delete_endpoint()
report(role=role, builtin_accuracy=float(((scores > 0.5) == test_y).mean()), model_data=estimator.model_data)
