"""Operations of Clary's own service: what is offered beside the AWS APIs."""
