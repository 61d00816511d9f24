"""The recurrent engine: rows, table, networks, training. Knows no Kafka, no metrics, no threads and no clock."""
