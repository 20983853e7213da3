"""An algorithm resource as a publisher makes it, with the built-in XGBoost as its image."""

import time

IMAGE = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1"


def publish(client, name, role, train_uri, output_uri):
    """Create the algorithm with a validation, wait for the end of it and return the ARN."""
    created = client.create_algorithm(
        AlgorithmName=name,
        AlgorithmDescription="Boosted trees",
        TrainingSpecification={
            "TrainingImage": IMAGE,
            "SupportedHyperParameters": [
                {
                    "Name": "num_round",
                    "Type": "Integer",
                    "Range": {"IntegerParameterRangeSpecification": {"MinValue": "1", "MaxValue": "50"}},
                    "IsTunable": True,
                    "DefaultValue": "20",
                },
                {
                    "Name": "eta",
                    "Type": "Continuous",
                    "Range": {
                        "ContinuousParameterRangeSpecification": {"MinValue": "0.0", "MaxValue": "1.0"}
                    },
                    "IsTunable": True,
                },
                {
                    "Name": "objective",
                    "Type": "Categorical",
                    "Range": {
                        "CategoricalParameterRangeSpecification": {
                            "Values": ["binary:logistic", "reg:squarederror"]
                        }
                    },
                    "IsRequired": True,
                },
            ],
            "SupportedTrainingInstanceTypes": ["ml.m5.large", "ml.m4.xlarge"],
            "SupportsDistributedTraining": False,
            "TrainingChannels": [
                {
                    "Name": "train",
                    "IsRequired": True,
                    "SupportedContentTypes": ["text/csv"],
                    "SupportedInputModes": ["File"],
                }
            ],
            "SupportedTuningJobObjectiveMetrics": [{"Type": "Minimize", "MetricName": "validation:logloss"}],
        },
        ValidationSpecification={
            "ValidationRole": role,
            "ValidationProfiles": [
                {
                    "ProfileName": "small",
                    "TrainingJobDefinition": {
                        "TrainingInputMode": "File",
                        "HyperParameters": {"objective": "binary:logistic", "num_round": "2"},
                        "InputDataConfig": [
                            {
                                "ChannelName": "train",
                                "ContentType": "text/csv",
                                "DataSource": {
                                    "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": train_uri}
                                },
                            }
                        ],
                        "OutputDataConfig": {"S3OutputPath": output_uri},
                        "ResourceConfig": {
                            "InstanceType": "ml.m5.large",
                            "InstanceCount": 1,
                            "VolumeSizeInGB": 1,
                        },
                        "StoppingCondition": {"MaxRuntimeInSeconds": 300},
                    },
                }
            ],
        },
        Tags=[{"Key": "team", "Value": "trees"}],
    )
    for _ in range(240):
        algorithm = client.describe_algorithm(AlgorithmName=name)
        if algorithm["AlgorithmStatus"] not in ("Pending", "InProgress"):
            break
        time.sleep(0.5)
    assert algorithm["AlgorithmStatus"] == "Completed", algorithm["AlgorithmStatusDetails"]
    return created["AlgorithmArn"]
