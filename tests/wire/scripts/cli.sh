#!/bin/sh
# The AWS CLI: the same flow, as a shell script has it. Data waits in train.csv and test.csv.
set -eu
region=$(aws configure get region)
account=$(aws sts get-caller-identity --query Account --output text)
role=$(aws iam get-role --role-name ClaryExecutionRole --query Role.Arn --output text)
image=246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1
bucket=cli-$account-$region

aws s3 mb "s3://$bucket"
aws s3 cp train.csv "s3://$bucket/train/data.csv"
aws sagemaker create-training-job --training-job-name cli-job --role-arn "$role" \
  --algorithm-specification "TrainingImage=$image,TrainingInputMode=File" \
  --hyper-parameters objective=binary:logistic,num_round=20 \
  --input-data-config "ChannelName=train,ContentType=text/csv,DataSource={S3DataSource={S3DataType=S3Prefix,S3Uri=s3://$bucket/train/}}" \
  --output-data-config "S3OutputPath=s3://$bucket/output" \
  --resource-config InstanceType=ml.m5.large,InstanceCount=1,VolumeSizeInGB=10 \
  --stopping-condition MaxRuntimeInSeconds=600
for _ in $(seq 120); do
  status=$(aws sagemaker describe-training-job --training-job-name cli-job --query TrainingJobStatus --output text)
  [ "$status" = InProgress ] || break
  sleep 0.5
done
[ "$status" = Completed ]
model=$(aws sagemaker describe-training-job --training-job-name cli-job \
  --query ModelArtifacts.S3ModelArtifacts --output text)

aws sagemaker create-model --model-name cli-model --execution-role-arn "$role" \
  --primary-container "Image=$image,ModelDataUrl=$model"
aws sagemaker create-endpoint-config --endpoint-config-name cli-config \
  --production-variants '{"VariantName":"AllTraffic","ModelName":"cli-model","InitialInstanceCount":1,"InstanceType":"ml.m5.large"}'
aws sagemaker create-endpoint --endpoint-name cli-endpoint --endpoint-config-name cli-config
for _ in $(seq 120); do
  status=$(aws sagemaker describe-endpoint --endpoint-name cli-endpoint --query EndpointStatus --output text)
  [ "$status" = Creating ] || break
  sleep 0.5
done
[ "$status" = InService ]
aws sagemaker-runtime invoke-endpoint --endpoint-name cli-endpoint --content-type text/csv \
  --body fileb://test.csv answer.csv
aws logs get-log-events --log-group-name /aws/sagemaker/TrainingJobs --start-from-head \
  --log-stream-name "$(aws logs describe-log-streams --log-group-name /aws/sagemaker/TrainingJobs \
    --log-stream-name-prefix cli-job/ --query 'logStreams[0].logStreamName' --output text)" \
  --query 'events[].message' --output text > log.txt
aws sagemaker delete-endpoint --endpoint-name cli-endpoint
aws sagemaker delete-endpoint-config --endpoint-config-name cli-config
aws sagemaker delete-model --model-name cli-model
aws s3 rb --force "s3://$bucket"
