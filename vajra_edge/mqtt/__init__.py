"""The MQTT side: typed messages, one table of topics, an outbox, the client."""
