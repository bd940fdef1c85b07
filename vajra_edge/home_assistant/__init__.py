"""Home Assistant: what it reads over MQTT so that devices, cameras and their entities appear there by themselves."""
