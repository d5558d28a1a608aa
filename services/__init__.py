"""What runs in the containers: the wire format, the base station and the devices."""
