"""SageMaker Python SDK 3.x: the Algorithm resource; ModelTrainer and a TrainingJob resource name it."""

import boto3
from data import breast_cancer, report
from published import publish
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.resources import Algorithm, TrainingJob
from sagemaker.core.shapes import (
    AlgorithmSpecification,
    Channel,
    DataSource,
    OutputDataConfig,
    ResourceConfig,
    S3DataSource,
    StoppingCondition,
)
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData
from sagemaker.train.configs import OutputDataConfig as TrainerOutput

session = Session()
role = get_execution_role()
bucket = session.default_bucket()
csv, _, _ = breast_cancer()
train_uri = session.upload_string_as_file_body(csv, bucket, "sdk3-algorithm/train/data.csv").rsplit("/", 1)[0]
output_uri = f"s3://{bucket}/sdk3-algorithm/output"
arn = publish(boto3.client("sagemaker"), "sdk3-algorithm", role, train_uri, output_uri)

algorithm = Algorithm.get(algorithm_name="sdk3-algorithm")
algorithm.wait_for_status("Completed", poll=1)
job = TrainingJob.create(
    training_job_name="sdk3-by-algorithm",
    role_arn=role,
    algorithm_specification=AlgorithmSpecification(algorithm_name=arn, training_input_mode="File"),
    hyper_parameters={"objective": "binary:logistic"},
    input_data_config=[
        Channel(
            channel_name="train",
            content_type="text/csv",
            data_source=DataSource(s3_data_source=S3DataSource(s3_data_type="S3Prefix", s3_uri=train_uri)),
        )
    ],
    output_data_config=OutputDataConfig(s3_output_path=output_uri),
    resource_config=ResourceConfig(instance_type="ml.m5.large", instance_count=1, volume_size_in_gb=1),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=300),
)
job.wait(poll=1)
job.refresh()
trainer = ModelTrainer(
    algorithm_name=arn,
    role=role,
    base_job_name="sdk3-trainer",
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    output_data_config=TrainerOutput(s3_output_path=output_uri),
    hyperparameters={"objective": "binary:logistic", "num_round": 3},
    sagemaker_session=session,
)
trainer.train([InputData(channel_name="train", data_source=train_uri, content_type="text/csv")])
trained = trainer._latest_training_job
trained.refresh()
listed = [each.algorithm_name for each in Algorithm.get_all(name_contains="sdk3", sort_by="Name")]
algorithm.delete()
algorithm.wait_for_delete(poll=1, timeout=60)
report(
    arn=algorithm.algorithm_arn,
    listed=listed,
    status=job.training_job_status,
    hyperparameters=job.hyper_parameters,
    trainer_status=trained.training_job_status,
    trainer_algorithm=trained.algorithm_specification.algorithm_name,
    left=[each.algorithm_name for each in Algorithm.get_all(name_contains="sdk3")],
)
