"""Where frames come from, and the thread that keeps only the newest."""
