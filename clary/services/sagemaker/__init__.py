"""The operations of SageMaker."""
