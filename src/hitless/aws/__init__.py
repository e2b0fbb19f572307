"""What talks to AWS: the only place of boto3 and osls. Knows no emulator: endpoints come as botocore reads them."""
