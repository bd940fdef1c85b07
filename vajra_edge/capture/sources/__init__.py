"""What a camera's address may lead to: OpenCV, GStreamer, V4L2, a folder."""
