"""Message queues, as SQS has them."""
