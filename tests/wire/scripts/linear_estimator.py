"""The SDK's LinearLearner and FactorizationMachines, 1.x and 2.x: from record sets to answers."""

import boto3
import numpy
import sagemaker
from data import report
from sklearn.datasets import load_breast_cancer, load_diabetes

OLD = sagemaker.__version__.startswith("1.")

session = sagemaker.Session()
common = {
    "role": sagemaker.get_execution_role(),
    "sagemaker_session": session,
    ("train_instance_count" if OLD else "instance_count"): 1,
    ("train_instance_type" if OLD else "instance_type"): "ml.m5.large",
    "output_path": "s3://%s/output" % session.default_bucket(),
}


def trained_and_asked(
    features, labels, key, kind=sagemaker.LinearLearner, splits=("train", "validation", "test"), **options
):
    features, labels = features.astype("float32"), labels.astype("float32")
    order = numpy.random.RandomState(3).permutation(len(labels))
    train, check, test = numpy.split(order, [int(0.6 * len(order)), int(0.8 * len(order))])
    estimator = kind(**dict(common, **options))
    channels = [
        estimator.record_set(features[part], labels[part], channel=channel)
        for channel, part in (("train", train), ("validation", check), ("test", test))
        if channel in splits
    ]
    estimator.fit(channels)
    predictor = estimator.deploy(1, "ml.m5.large", wait=False)
    name = predictor.endpoint if OLD else predictor.endpoint_name
    waiter = boto3.client("sagemaker").get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    records = predictor.predict(features[test])
    found = numpy.array([record.label[key].float32_tensor.values[0] for record in records])
    predictor.delete_model()
    predictor.delete_endpoint()
    job = session.sagemaker_client.describe_training_job(TrainingJobName=estimator.latest_training_job.name)
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    return found, labels[test], metrics


said, truth, classified = trained_and_asked(
    *load_breast_cancer(return_X_y=True),
    "predicted_label",
    predictor_type="binary_classifier",
    binary_classifier_model_selection_criteria="f_beta",
)
score, wanted, fitted = trained_and_asked(
    *load_diabetes(return_X_y=True), "score", predictor_type="regressor", epochs=20, loss="squared_loss"
)
# Who rates what: a one for the user, and a one for the item.
random = numpy.random.RandomState(5)
users, items = random.randint(0, 20, 3000), random.randint(0, 15, 3000)
ones = numpy.concatenate([numpy.eye(20)[users], numpy.eye(15)[items]], axis=1)
ratings = 3 + (random.normal(size=(20, 2))[users] * random.normal(size=(15, 2))[items]).sum(axis=1)
guess, rated, learned = trained_and_asked(
    ones,
    ratings,
    "score",
    kind=sagemaker.FactorizationMachines,
    splits=("train", "test"),
    num_factors=4,
    predictor_type="regressor",
    epochs=100,
    factors_lr=0.01,
    linear_lr=0.01,
    factors_init_sigma=0.1,
)
report(
    accuracy=float((said == truth).mean()),
    rmse=float(((score - wanted) ** 2).mean() ** 0.5),
    spread=float(wanted.std()),
    classified=classified,
    fitted=fitted,
    rating_rmse=float(((guess - rated) ** 2).mean() ** 0.5),
    rating_spread=float(rated.std()),
    learned=learned,
)
