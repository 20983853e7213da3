"""The operations of SageMaker Metrics."""
