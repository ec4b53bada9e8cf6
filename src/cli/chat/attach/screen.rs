//! The desk on a whole screen: what comes from the desk and the keyboard goes into the model, and the model onto the
//! screen.

use std::time::SystemTime;

use ratatui::Frame;

use super::super::super::exit::Failure;
use super::super::super::stage::{Key, Leave, Stage, Theme, play};
use super::desk::Desk;
use super::link::{Link, News};
use super::view::draw;

/// Sits at the desk until the operator leaves.
pub(super) async fn run(desk: Desk, link: Link) -> Result<(), Failure> {
    let mut sitting = Sitting { desk, link };
    let done = play(&mut sitting).await;
    sitting.link.leave().await;
    done
}

struct Sitting {
    desk: Desk,
    link: Link,
}

impl Stage for Sitting {
    async fn hear(&mut self) -> Result<(), Failure> {
        match self.link.news().await {
            None => Err(Failure::error("the desk is no longer heard")),
            Some(News::Ended(failure)) => Err(failure),
            Some(news) => {
                self.desk.hear(news, SystemTime::now());
                Ok(())
            }
        }
    }

    fn press(&mut self, key: Key, now: SystemTime) -> Option<Leave> {
        self.desk.press(key, now)
    }

    fn ask(&mut self) {
        for asked in self.desk.take_asks() {
            let id = asked.id.clone();
            if !self.link.ask(asked) {
                self.desk.unasked(&id, SystemTime::now());
            }
        }
    }

    fn tick(&mut self, now: SystemTime) -> bool {
        let ticks = self.desk.ticks();
        self.desk.tick(now);
        ticks
    }

    fn take_ring(&mut self) -> bool {
        self.desk.take_ring()
    }

    fn draw(&self, theme: Theme, now: SystemTime, frame: &mut Frame<'_>) {
        draw(&self.desk, theme, now, frame);
    }
}
