"""Operations of SQS."""
