//! The limit of lines per second: a token bucket that holds one second's worth.

/// Counts what passes and what does not.
#[derive(Debug)]
pub(super) struct Flood {
    lines_per_s: u64,
    /// Millionths of a line that may still pass.
    credit: u64,
    counted_us: u64,
    dropped: u64,
}

/// One line, in the units of the credit.
const LINE: u64 = 1_000_000;

impl Flood {
    pub(super) fn new(lines_per_s: u32) -> Self {
        let lines_per_s = u64::from(lines_per_s.max(1));
        Self {
            lines_per_s,
            credit: lines_per_s * LINE,
            counted_us: 0,
            dropped: 0,
        }
    }

    pub(super) fn lines_per_s(&self) -> u64 {
        self.lines_per_s
    }

    /// Whether a line may pass now.
    pub(super) fn admit(&mut self, now_us: u64) -> bool {
        let passed_us = now_us.saturating_sub(self.counted_us);
        self.counted_us = now_us;
        let earned = passed_us.saturating_mul(self.lines_per_s);
        self.credit = self
            .credit
            .saturating_add(earned)
            .min(self.lines_per_s * LINE);
        let admitted = self.credit >= LINE;
        if admitted {
            self.credit -= LINE;
        } else {
            self.dropped += 1;
        }
        admitted
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_only_the_rate() {
        let mut flood = Flood::new(100);
        let burst = (0..500).filter(|_| flood.admit(1_000_000)).count();
        assert_eq!((burst, flood.take_dropped()), (100, 400));
        let mut second = 0;
        for ms in 0..1_000 {
            second += (0..10)
                .filter(|_| flood.admit(1_000_000 + ms * 1_000))
                .count();
        }
        assert!((98..=101).contains(&second), "{second}");
        assert_eq!(flood.dropped() + second as u64, 10_000);
    }
}
