"""SageMaker Python SDK 3.x: ModelTrainer with the built-in XGBoost; its resources deploy and score."""

import numpy
from data import breast_cancer, report
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, ProductionVariant
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig

session = Session()
role = get_execution_role()
bucket = session.default_bucket()
region = session.boto_region_name
csv, test_x, test_y = breast_cancer()
train_uri = session.upload_string_as_file_body(csv, bucket, "sdk3/train/data.csv").rsplit("/", 1)[0]
image = image_uris.retrieve("xgboost", region, version="1.7-1")

trainer = ModelTrainer(
    training_image=image,
    role=role,
    base_job_name="sdk3-xgboost",
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/sdk3/output"),
    hyperparameters={"objective": "binary:logistic", "num_round": 20},
    sagemaker_session=session,
)
trainer.train([InputData(channel_name="train", data_source=train_uri, content_type="text/csv")])
job = trainer._latest_training_job
job.refresh()

name = job.training_job_name
Model.create(
    model_name=name,
    primary_container=ContainerDefinition(image=image, model_data_url=job.model_artifacts.s3_model_artifacts),
    execution_role_arn=role,
)
EndpointConfig.create(
    endpoint_config_name=name,
    production_variants=[
        ProductionVariant(
            variant_name="AllTraffic",
            model_name=name,
            initial_instance_count=1,
            instance_type="ml.m5.large",
        )
    ],
)
endpoint = Endpoint.create(endpoint_name=name, endpoint_config_name=name)
endpoint.wait_for_status("InService", poll=1)
body = "\n".join(",".join(map(str, row)) for row in test_x)
answer = endpoint.invoke(body=body.encode(), content_type="text/csv", accept="text/csv").body.read()
scores = numpy.array(answer.decode().replace("\n", ",").strip(",").split(","), dtype=float)
endpoint.delete()
EndpointConfig.get(endpoint_config_name=name).delete()
Model.get(model_name=name).delete()
report(
    role=role,
    status=job.training_job_status,
    builtin_accuracy=float(((scores > 0.5) == test_y).mean()),
    metrics={m.metric_name: m.value for m in job.final_metric_data_list},
)
