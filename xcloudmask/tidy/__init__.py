"""`clean` and `cast_shadow`: a mask's areas across chunks, closed up, widened, sieved; shadows found."""
