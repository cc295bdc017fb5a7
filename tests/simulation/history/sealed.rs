//! Payloads that the router does not read: what goes with them arrives as it was sent.

use crosspoint::wamp::options::{Passthru, PassthruTexts};

use super::{Content, History, Kept, broken};

/// What goes with a payload that the router does not read.
pub fn seal(is_sealed: bool, content: Content) -> Passthru<'static> {
    if !is_sealed {
        return Passthru::default();
    }
    let Content { kind, session, number, .. } = content;
    Passthru::new(PassthruTexts {
        scheme: Some("x_sim".into()),
        serializer: number.is_multiple_of(2).then(|| "cbor".into()),
        cipher: number.is_multiple_of(3).then(|| "xsalsa20poly1305".into()),
        keyid: Some(format!("{kind}-{session}-{number}").into()),
    })
}

impl History {
    /// RESULT is as sealed as its callee sent it, for callers that understand it.
    pub fn check_seal(
        &mut self,
        caller: usize,
        number: u64,
        content: Option<Content>,
        got: &Passthru<'_>,
    ) -> Kept {
        let call = &self.sessions[caller].calls[number as usize];
        let Some((callee, index)) = call.invoked else { return Ok(()) };
        let is_sealed = self.sessions[callee].invocations[index].is_sealed;
        let is_right = content.is_some_and(|content| *got == seal(is_sealed, content));
        if !is_right || (is_sealed && !self.sessions[caller].can_seal) {
            return broken("passthru", format!("the result of call {number} of session {caller}: {got:?}"));
        }
        self.happened.sealed += u64::from(is_sealed);
        Ok(())
    }
}
