"""What is done with a mask: applying it, drawing it, writing it to GeoTIFF."""
