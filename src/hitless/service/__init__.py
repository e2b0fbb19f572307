"""The model: the contents of one serverless.yml as frozen data, without processes, sockets or stores."""
