"""What is done to a mask's areas across chunks: clouds closed up, widened, sieved; shadows found."""
