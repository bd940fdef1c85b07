"""Pictures with what is true of them: data.yaml, COCO json, folders, videos; for calibration, val and predict."""
