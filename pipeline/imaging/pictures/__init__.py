"""2D pictures: from a file to grey values."""
