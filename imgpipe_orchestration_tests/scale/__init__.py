"""Several gateways and several workers over one database and one object store: `make test-scale`."""
