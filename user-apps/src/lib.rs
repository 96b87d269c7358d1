//! user-apps.
