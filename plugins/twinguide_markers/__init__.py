"""Tools with printed markers, seen by a camera or in a video: poses with the covariance that the corners leave."""
