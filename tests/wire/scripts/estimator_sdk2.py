"""An Estimator of the SageMaker SDK with an image of the caller's own."""

import io
import json
import os
import tarfile

import boto3
import sagemaker
from sagemaker.estimator import Estimator

session = sagemaker.Session()
role = os.environ["ROLE"]
data = session.upload_string_as_file_body("1,2\n3,4\n", session.default_bucket(), "rows/rows.csv")
estimator = Estimator(
    image_uri=os.environ["IMAGE"],
    role=role,
    instance_count=1,
    instance_type="ml.m5.large",
    hyperparameters={"depth": 3},
    environment={"MINE": "yes"},
    sagemaker_session=session,
)
estimator.fit({"train": data})
bucket, _, key = estimator.model_data.removeprefix("s3://").partition("/")
packed = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
    model = json.load(archive.extractfile("model.json"))
with open(os.environ["CLARY_TEST_REPORT"], "w") as report:
    json.dump(model, report)
