//! libipc.
