"""The model: what one serverless.yml describes, as frozen data. Knows nothing of processes, sockets or stores."""
