"""What runs of `fastdrop train` are made of and leave, for who trains and who reports."""
