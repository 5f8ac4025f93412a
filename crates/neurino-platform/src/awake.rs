//! Keeps the computer from going to sleep by itself; the screen may go dark all the same.

/// What keeps the computer awake, or lets it sleep. What is held ends with the process, whatever
/// ends that.
pub trait Awake: Send {
    /// Holds the computer awake until [`Awake::release`]; a second call changes nothing. `why` is
    /// shown to whoever asks the system. Takes milliseconds, half a second where a service hangs.
    ///
    /// # Errors
    /// [`AwakeError`].
    fn hold(&mut self, why: &str) -> Result<(), AwakeError>;

    /// Lets the computer sleep again; without a hold nothing happens.
    fn release(&mut self);
}

/// Why the computer cannot be kept awake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwakeError {
    /// This system has no way, or none that is known here.
    #[error("this system offers no way to keep the computer awake")]
    NotHere,
    /// The system's service is not there.
    #[error("the system's session service (logind) does not answer")]
    NoService,
    /// The system refuses.
    #[error("the system does not allow it: {0}")]
    Refused(String),
}

/// The way of this system.
pub fn open_awake() -> Box<dyn Awake> {
    #[cfg(target_os = "linux")]
    return Box::new(crate::logind::Logind::system());
    #[cfg(windows)]
    return Box::new(crate::windows_awake::PowerRequest::default());
    #[cfg(not(any(target_os = "linux", windows)))]
    return Box::new(NoWay);
}

#[cfg(not(any(target_os = "linux", windows)))]
struct NoWay;

#[cfg(not(any(target_os = "linux", windows)))]
impl Awake for NoWay {
    fn hold(&mut self, _why: &str) -> Result<(), AwakeError> {
        Err(AwakeError::NotHere)
    }

    fn release(&mut self) {}
}
