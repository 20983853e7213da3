"""The built-in XGBoost on one host and on two, by the SageMaker Python SDK 2.x: the same model.

    clary run -- python examples/several_hosts.py

Needs sagemaker and scikit-learn (see requirements.txt). The training rows lie in six objects; with
ShardedByS3Key each of two hosts gets three of them.
"""

import numpy
import sagemaker
from sagemaker.inputs import TrainingInput
from sklearn.datasets import load_breast_cancer

OBJECTS = 6


def main():
    session = sagemaker.Session()
    bucket = session.default_bucket()
    features, labels = load_breast_cancer(return_X_y=True)
    rows = numpy.column_stack([labels, features])[numpy.random.RandomState(7).permutation(len(labels))]
    channels = {}
    for name, part in (("train", rows[:400]), ("validation", rows[400:])):
        for number in range(OBJECTS):
            lines = "".join(",".join(map(str, row)) + "\n" for row in part[number::OBJECTS])
            key = f"several-hosts/{name}/part-{number}.csv"
            session.upload_string_as_file_body(lines, bucket, key)
        channels[name] = TrainingInput(
            f"s3://{bucket}/several-hosts/{name}/", content_type="text/csv", distribution="ShardedByS3Key"
        )
    areas = {}
    for hosts in (1, 2):
        estimator = sagemaker.estimator.Estimator(
            sagemaker.image_uris.retrieve("xgboost", session.boto_region_name, version="1.7-1"),
            sagemaker.get_execution_role(),
            instance_count=hosts,
            instance_type="ml.t3.medium",
            output_path=f"s3://{bucket}/several-hosts/output",
            hyperparameters={"objective": "binary:logistic", "num_round": 20, "eval_metric": "auc"},
            sagemaker_session=session,
        )
        estimator.fit(channels, logs="None")
        final = estimator.latest_training_job.describe()["FinalMetricDataList"]
        areas[hosts] = next(each["Value"] for each in final if each["MetricName"] == "validation:auc")
        print(f"{hosts} host(s): validation:auc {areas[hosts]:.4f}")
    assert abs(areas[1] - areas[2]) < 0.01 and min(areas.values()) > 0.97


if __name__ == "__main__":
    main()
