"""Train, deploy and score the built-in XGBoost, with the SageMaker Python SDK and boto3.

Nothing in this file knows Clary: it is the script one would run against Amazon SageMaker.
"""

import io
import time

import boto3
import numpy
import sagemaker
from sagemaker.deserializers import CSVDeserializer
from sagemaker.inputs import TrainingInput
from sagemaker.serializers import CSVSerializer
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.model_selection import train_test_split


def as_csv(labels, features):
    """CSV as the algorithm wants it: no header, the label first."""
    buffer = io.StringIO()
    numpy.savetxt(buffer, numpy.column_stack([labels, features]), delimiter=",", fmt="%.6g")
    return buffer.getvalue()


def main():
    session = sagemaker.Session()
    bucket = session.default_bucket()
    role = sagemaker.get_execution_role()
    prefix = f"quickstart-{int(time.time())}"

    data = load_breast_cancer()
    labels = 1 - data.target  # 1 = malignant, the class one must not miss
    train_x, test_x, train_y, test_y = train_test_split(
        data.data, labels, test_size=0.25, stratify=labels, random_state=7
    )
    train_x, valid_x, train_y, valid_y = train_test_split(
        train_x, train_y, test_size=0.2, stratify=train_y, random_state=7
    )

    s3 = boto3.client("s3")
    for name, csv in (("train", as_csv(train_y, train_x)), ("validation", as_csv(valid_y, valid_x))):
        s3.put_object(Bucket=bucket, Key=f"{prefix}/{name}/data.csv", Body=csv.encode())

    estimator = sagemaker.estimator.Estimator(
        image_uri=sagemaker.image_uris.retrieve("xgboost", session.boto_region_name, version="1.7-1"),
        role=role,
        instance_count=1,
        instance_type="ml.m5.large",
        output_path=f"s3://{bucket}/{prefix}/output",
        sagemaker_session=session,
        hyperparameters={
            "objective": "binary:logistic",
            "eval_metric": "logloss,auc",
            "num_round": 40,
            "max_depth": 4,
            "eta": 0.2,
        },
    )
    estimator.fit(
        {
            name: TrainingInput(f"s3://{bucket}/{prefix}/{name}", content_type="text/csv")
            for name in ("train", "validation")
        },
        logs=True,
    )

    job = session.sagemaker_client.describe_training_job(TrainingJobName=estimator.latest_training_job.name)
    print("\nFinal metrics")
    for metric in job["FinalMetricDataList"]:
        print(f"  {metric['MetricName']:<22} {metric['Value']:.4f}")

    predictor = estimator.deploy(
        initial_instance_count=1,
        instance_type="ml.m5.large",
        serializer=CSVSerializer(),
        deserializer=CSVDeserializer(),
        wait=False,  # the SDK's own wait sleeps half a minute before its first look
    )
    try:
        in_service = session.sagemaker_client.get_waiter("endpoint_in_service")
        in_service.wait(EndpointName=predictor.endpoint_name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        scores = numpy.array(predictor.predict(test_x), dtype=float).ravel()
    finally:
        predictor.delete_model()
        predictor.delete_endpoint()  # and its configuration
        for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=item["Key"])

    predicted = (scores > 0.5).astype(int)
    (true_negative, false_positive), (false_negative, true_positive) = confusion_matrix(test_y, predicted)
    precision, recall, f1, _ = precision_recall_fscore_support(test_y, predicted, average="binary")
    print(f"\n{len(test_y)} held-out rows")
    print("                    predicted benign   predicted malignant")
    print(f"  really benign     {true_negative:>16}   {false_positive:>19}")
    print(f"  really malignant  {false_negative:>16}   {true_positive:>19}")
    print(f"\n  precision {precision:.3f}   recall {recall:.3f}   F1 {f1:.3f}")


if __name__ == "__main__":
    main()
