"""The SDK's own estimators of AWS's algorithms, 1.x and 2.x: record sets, trained, deployed and asked."""

import sys

import boto3
import numpy
import sagemaker
from data import report
from sklearn.cluster import KMeans as Lloyd
from sklearn.datasets import load_digits

OLD = sagemaker.__version__.startswith("1.")

session = sagemaker.Session()
common = {
    "role": sagemaker.get_execution_role(),
    "sagemaker_session": session,
    ("train_instance_count" if OLD else "instance_count"): 1,
    ("train_instance_type" if OLD else "instance_type"): "ml.m5.large",
    "output_path": "s3://%s/output" % session.default_bucket(),
}
rows = load_digits().data.astype("float32")
labels = load_digits().target.astype("float32")


def deployed(estimator):
    predictor = estimator.deploy(1, "ml.m5.large", wait=False)
    name = predictor.endpoint if OLD else predictor.endpoint_name
    waiter = boto3.client("sagemaker").get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    return predictor


def values(records, key):
    return numpy.array([record.label[key].float32_tensor.values for record in records])


def metrics_of(estimator):
    job = session.sagemaker_client.describe_training_job(TrainingJobName=estimator.latest_training_job.name)
    return {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}


def k_means():
    estimator = sagemaker.KMeans(k=10, **common)
    channels = [estimator.record_set(rows), estimator.record_set(rows[:500], channel="test")]
    estimator.fit(channels, mini_batch_size=500)
    predictor = deployed(estimator)
    records = predictor.predict(rows)
    far = values(records, "distance_to_cluster")[:, 0]
    clusters = set(values(records, "closest_cluster")[:, 0].tolist())
    predictor.delete_model()
    predictor.delete_endpoint()
    lloyd = Lloyd(10, n_init=3, random_state=0).fit(rows)
    return {
        "clusters": sorted(clusters),
        "mean_square": float((far**2).mean()),
        "lloyd": float(lloyd.inertia_ / len(rows)),
        "metrics": metrics_of(estimator),
    }


def pca():
    estimator = sagemaker.PCA(num_components=3, subtract_mean=True, **common)
    estimator.fit(estimator.record_set(rows))
    predictor = deployed(estimator)
    found = values(predictor.predict(rows), "projection")
    predictor.delete_model()
    predictor.delete_endpoint()
    centred = rows - rows.mean(axis=0)
    singular = numpy.linalg.svd(centred.astype(float), compute_uv=False)[:3][::-1]
    return {"lengths": numpy.linalg.norm(found, axis=0).tolist(), "singular": singular.tolist()}


def knn():
    estimator = sagemaker.KNN(k=5, sample_size=1500, predictor_type="classifier", **common)
    train = estimator.record_set(rows[:1500], labels[:1500])
    test = estimator.record_set(rows[1500:], labels[1500:], channel="test")
    estimator.fit([train, test], mini_batch_size=500)
    predictor = deployed(estimator)
    found = values(predictor.predict(rows[1500:]), "predicted_label")[:, 0]
    predictor.delete_model()
    predictor.delete_endpoint()
    return {"accuracy": float((found == labels[1500:]).mean()), "metrics": metrics_of(estimator)}


def random_cut_forest():
    random = numpy.random.default_rng(0)
    points = random.standard_normal((2000, 2)).astype("float32")
    strange = numpy.array([8, -8] * 10, "float32").reshape(-1, 2)
    estimator = sagemaker.RandomCutForest(num_trees=50, num_samples_per_tree=32, **common)
    everything = numpy.concatenate([points[:490], strange])
    labels = numpy.repeat(numpy.array([0, 1], "float32"), [490, 10])
    channels = [
        estimator.record_set(points),
        estimator.record_set(everything, labels, channel="test"),
    ]
    estimator.fit(channels)
    predictor = deployed(estimator)
    scores = values(predictor.predict(everything), "score")[:, 0]
    predictor.delete_model()
    predictor.delete_endpoint()
    return {
        "metrics": metrics_of(estimator),
        "usual": float(scores[:490].max()),
        "strange": float(scores[490:].min()),
    }


def lda():
    random = numpy.random.default_rng(0)
    topics = random.dirichlet([0.1] * 50, 3)
    shares = random.dirichlet([0.3] * 3, 400)
    counts = numpy.stack([random.multinomial(60, each / each.sum()) for each in shares @ topics])
    counts = counts.astype("float32")
    kind = {key: value for key, value in common.items() if not key.endswith("instance_count")}
    estimator = sagemaker.LDA(num_topics=3, alpha0=0.9, max_restarts=3, **kind)
    train = estimator.record_set(counts[:300])
    estimator.fit([train, estimator.record_set(counts[300:], channel="test")], mini_batch_size=300)
    predictor = deployed(estimator)
    found = values(predictor.predict(counts), "topic_mixture")
    predictor.delete_model()
    predictor.delete_endpoint()
    near = numpy.corrcoef(found.T, shares.T)[:3, 3:]
    return {
        "sums": [float(found.sum(axis=1).min()), float(found.sum(axis=1).max())],
        "nearest": near.max(axis=0).tolist(),
        "which": sorted(near.argmax(axis=0).tolist()),
        "metrics": metrics_of(estimator),
    }


ALGORITHMS = {"kmeans": k_means, "pca": pca, "knn": knn, "lda": lda, "randomcutforest": random_cut_forest}
report(**{name: ALGORITHMS[name]() for name in sys.argv[1:]})
