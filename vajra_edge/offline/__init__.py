"""What a person does with weights on a desk: export, val and predict, without cameras to serve or a broker."""
