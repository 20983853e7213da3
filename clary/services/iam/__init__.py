"""AWS IAM as far as clients of SageMaker need it: documents kept and read back, and users' access keys."""
