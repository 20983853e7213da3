"""Train a PyTorch script of your own on two hosts, with the SageMaker Python SDK.

Nothing in this file knows Clary: it is what one would run against Amazon SageMaker.
"""

from pathlib import Path

import sagemaker
from sagemaker.pytorch import PyTorch

estimator = PyTorch(
    entry_point="train.py",
    source_dir=str(Path(__file__).parent / "source"),
    role=sagemaker.get_execution_role(),
    instance_count=2,
    instance_type="ml.g4dn.xlarge",  # the SDK allows torch_distributed on GPU instances only
    framework_version="2.3.0",
    py_version="py311",
    distribution={"torch_distributed": {"enabled": True}},
    hyperparameters={"epochs": 60, "learning-rate": 0.2},
    metric_definitions=[{"Name": "test:accuracy", "Regex": r"test_accuracy=([0-9.]+)"}],
)
estimator.fit(logs=True)
metrics = estimator.latest_training_job.describe()["FinalMetricDataList"]
accuracy = next(each["Value"] for each in metrics if each["MetricName"] == "test:accuracy")
print(f"Accuracy {accuracy:.3f}; the model is {estimator.model_data}")
if accuracy < 0.9:
    raise SystemExit("the model is worse than it should be")
