"""The operations of CloudWatch."""
