"""What can be done with a saved domain as a whole: check, summarise, compare, convert, cut. Sans-IO."""
