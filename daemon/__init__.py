"""The process: Kafka, the loop, commands. May use `models` and `config`; torch stays behind `models`."""
