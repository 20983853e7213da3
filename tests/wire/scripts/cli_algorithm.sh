#!/bin/sh
# The AWS CLI: an algorithm is published, listed, trained with, tagged and deleted. Data waits in train.csv.
set -eu
role=$(aws iam get-role --role-name ClaryExecutionRole --query Role.Arn --output text)
image=246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1
bucket=cli-algorithm-bucket
source="DataSource={S3DataSource={S3DataType=S3Prefix,S3Uri=s3://$bucket/train/}}"

aws s3 mb "s3://$bucket"
aws s3 cp train.csv "s3://$bucket/train/data.csv"
arn=$(aws sagemaker create-algorithm --algorithm-name cli-algorithm --query AlgorithmArn --output text \
  --training-specification '{
    "TrainingImage": "'$image'",
    "SupportedHyperParameters": [
      {"Name": "objective", "Type": "FreeText", "DefaultValue": "binary:logistic"},
      {"Name": "num_round", "Type": "Integer", "IsRequired": true}],
    "SupportedTrainingInstanceTypes": ["ml.m5.large"],
    "TrainingChannels": [{"Name": "train", "IsRequired": true,
      "SupportedContentTypes": ["text/csv"], "SupportedInputModes": ["File"]}]}')
aws sagemaker add-tags --resource-arn "$arn" --tags Key=team,Value=trees
[ "$(aws sagemaker list-tags --resource-arn "$arn" --query 'Tags[0].Value' --output text)" = trees ]
aws sagemaker list-algorithms --name-contains cli --sort-by Name --sort-order Descending \
  --query 'AlgorithmSummaryList[].[AlgorithmName,AlgorithmStatus]' --output text > listed.txt

train() {
  aws sagemaker create-training-job --training-job-name "$1" --role-arn "$role" \
    --algorithm-specification "AlgorithmName=$arn,TrainingInputMode=File" --hyper-parameters "$2" \
    --input-data-config "ChannelName=train,ContentType=text/csv,$source" \
    --output-data-config "S3OutputPath=s3://$bucket/output" \
    --resource-config InstanceType=ml.m5.large,InstanceCount=1,VolumeSizeInGB=1 \
    --stopping-condition MaxRuntimeInSeconds=600
}
train cli-refused num_round=ten 2> refused.txt && exit 1
train cli-by-algorithm num_round=3
for _ in $(seq 120); do
  status=$(aws sagemaker describe-training-job --training-job-name cli-by-algorithm \
    --query TrainingJobStatus --output text)
  [ "$status" = InProgress ] || break
  sleep 0.5
done
aws sagemaker describe-training-job --training-job-name cli-by-algorithm \
  --query '[TrainingJobStatus,HyperParameters.objective,AlgorithmSpecification.AlgorithmName]' \
  --output text > described.txt
aws sagemaker delete-algorithm --algorithm-name cli-algorithm
aws sagemaker describe-algorithm --algorithm-name "$arn" 2> gone.txt && exit 1
aws s3 rb --force "s3://$bucket"
