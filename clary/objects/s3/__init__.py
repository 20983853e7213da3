"""The driver for an external S3."""
