"""A simulated optical tracker: spheres seen with noise, poses fitted with their covariance."""
