"""Remote calls between dadafs processes over trio streams."""
