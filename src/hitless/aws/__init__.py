"""Adapters to AWS: the only place of boto3 and osls. Endpoints are botocore's own setting, for emulators too."""
