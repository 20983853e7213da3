"""The operations of S3."""
