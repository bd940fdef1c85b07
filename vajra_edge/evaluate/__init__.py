"""How good a plan is: COCO mean average precision and speed."""
